"""From files to files: photos and videos in, an animated video out."""
