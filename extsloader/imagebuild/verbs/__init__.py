"""What each verb of `mkext` does, by area; `extsloader.imagebuild.main` parses."""
