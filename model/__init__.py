"""Networks. Contract of all: a clip tensor (N, M*V, I*C, T) in, logits (N, num_class) out, and no
tensor of rank above 4 on the way. Letters: docs/architecture.md."""
