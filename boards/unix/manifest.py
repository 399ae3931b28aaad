include("$(PORT_DIR)/variants/standard/manifest.py")
include("../../firmware/manifest.py")
