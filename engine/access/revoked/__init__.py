"""What has been revoked: tokens, and users' places on channels."""
