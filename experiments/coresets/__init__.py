"""Networks trained on chosen real images: random ones, herding and k-centre."""
