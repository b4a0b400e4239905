//! Small corners of Linux: processes, descriptors, CPUs, signals, the ring. The only place where unsafe is allowed.
