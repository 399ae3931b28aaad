metadata(description="A fixed array of slots that aggregates network flows", version="0.1.0")
package("flowtable", base_path="..", files=["__init__.py"])
