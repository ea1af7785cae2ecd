"""The bus on NATS: JetStream stores durable messages, core NATS carries the others."""
