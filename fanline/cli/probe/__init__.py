"""`fanline probe`: what is wrong between here and a server."""
