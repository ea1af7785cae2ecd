"""The bus on NATS: JetStream holds what is durable, core NATS carries the rest."""
