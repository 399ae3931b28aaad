"""The local hub: a stand-in for Azure IoT Hub for development, tests and demos."""

NAME = "vedette"  # of the server that answers, and of its Event Hub
