"""What each platform sends: one module a platform, whose ``read`` fills a post from a native payload."""
