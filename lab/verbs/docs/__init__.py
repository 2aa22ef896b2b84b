"""The documentation: reference pages that are made from the code, and a site that is built from all pages."""
