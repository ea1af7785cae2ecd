"""The streams of JetStream that the engine needs: how they are configured, created and kept."""
