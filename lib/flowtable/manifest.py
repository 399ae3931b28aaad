import json

with open("package.json") as file:  # says which files it is, for mip too
    package_json = json.load(file)

metadata(
    description="A fixed array of slots that aggregates network flows",
    version=package_json["version"],
    license="MIT",
)
package("flowtable", base_path="..", files=[name for _, name in package_json["urls"]])
