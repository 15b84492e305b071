"""Networks. All follow one contract: clip tensor (N, M*V, I*C, T) in, logits (N, num_class) out,
and no tensor of rank above 4 in between. docs/architecture.md explains the letters."""
