#include "train/signals.h"

#include <unistd.h>

#include <csignal>

namespace dino {
namespace {

// A signal handler can reach nothing but globals.
volatile std::sig_atomic_t received_signal = 0;

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGUSR1};

void on_signal(int signal) {
  if (received_signal != 0 && signal != SIGUSR1) _exit(128 + signal);
  received_signal = signal;
}

void handle_all(void (*handler)(int)) {
  for (const int signal : kSignals) {
    struct sigaction action = {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigaction(signal, &action, nullptr);
  }
}

}  // namespace

SignalGuard::SignalGuard() {
  received_signal = 0;
  handle_all(on_signal);
}

SignalGuard::~SignalGuard() { handle_all(SIG_DFL); }

int SignalGuard::received() const { return received_signal; }

int exit_code_of(int signal) { return signal == SIGUSR1 ? 75 : 128 + signal; }

}  // namespace dino
