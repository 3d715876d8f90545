"""Every log field and its form. Imports no room above."""
