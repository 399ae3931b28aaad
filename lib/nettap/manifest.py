import json

with open("package.json") as file:  # says which files it is, for mip too
    package_json = json.load(file)

metadata(
    description="Sees an application's connections in the socket layer",
    version=package_json["version"],
    license="MIT",
)
package("nettap", base_path="..", files=[name for _, name in package_json["urls"]])
