"""What the tests stand on: real programs, real images, an independent client, and the host oracle."""
