#pragma once

#include <nlohmann/json_fwd.hpp>

namespace dino {

/// Names and values: version, compiler, libraries, processor, devices.
nlohmann::json build_and_machine();

}  // namespace dino
