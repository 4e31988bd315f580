"""`mkext`: from recipes to a signed image; never installed on a device."""
