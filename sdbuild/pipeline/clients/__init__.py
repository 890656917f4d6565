"""Who draws: Apple's Swift package or diffusers. Each client is one implementation of all that they do differently."""
