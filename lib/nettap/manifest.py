metadata(description="Sees an application's connections in the socket layer", version="0.1.0")
package("nettap", base_path="..")
