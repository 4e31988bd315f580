"""Container images as the OCI image specification has them: references, layers, layouts."""
