"""Where posts come from: files, the simulator, and what each platform sends."""
