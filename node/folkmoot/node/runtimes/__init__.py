"""What starts algorithms: a container engine, or for development plain processes. Both keep the promises of `ports.Runtime`."""
