"""The documentation: reference pages that are generated from the code, and a site that is built from all pages."""
