lamina: stdout: Bad file descriptor
