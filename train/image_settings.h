#pragma once

#include "augment/dataset.h"
#include "train/config.h"

namespace dino {

/// Decides which channels and type of pixels images have where `config` leaves it open, and makes `dataset` read them like that. A run that goes
/// on keeps what it began with (config.json beside its checkpoint).
void settle_kind(TrainConfig& config, Dataset& dataset);

/// The same, and for other than 8-bit gray or colour, mean and deviation of each channel over a sample of the images; says on stderr what
/// that means. Throws UsageError if mean or deviation do
/// not fit the channels, DataError if none of the images can be read.
void settle_images(TrainConfig& config, Dataset& dataset);

/// Opens --data and settles its images.
std::unique_ptr<Dataset> open_settled(TrainConfig& config);

}  // namespace dino
