"""The local hub: a stand-in for Azure IoT Hub for development, tests and demos."""
