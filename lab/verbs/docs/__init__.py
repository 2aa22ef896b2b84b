"""The documentation: reference pages generated from the code, and a site that is built from all pages."""
