"""From images to a disk that a machine boots."""
