import json

with open("package.json") as file:  # says which files it is, for mip too
    package_json = json.load(file)

metadata(
    description="A client for Azure IoT Hub that never holds the loop",
    version=package_json["version"],
    license="MIT",
)
require("umqtt.simple")
package("iothub", base_path="..", files=[name for _, name in package_json["urls"]])
