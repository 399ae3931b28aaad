metadata(description="A client for Azure IoT Hub that never holds the loop", version="0.1.0")
require("umqtt.simple")
package("iothub", base_path="..")
