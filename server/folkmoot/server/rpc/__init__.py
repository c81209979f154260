"""The contract's services: proto in, one domain call, proto out."""
