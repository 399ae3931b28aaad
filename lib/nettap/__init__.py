"""nettap sees an application's connections and counts their traffic, without being in the way."""
