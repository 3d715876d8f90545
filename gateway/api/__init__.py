"""HTTP in and out: the public port's lean lane and routes, and the admin port. Never picks replicas."""
