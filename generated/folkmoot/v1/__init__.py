"""Messages and services of folkmoot.v1, generated from proto/ by `make generate`: do not edit."""
