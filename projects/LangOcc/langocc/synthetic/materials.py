"""Names of the materials that ``texturing`` draws."""
PLAIN, PAINT, GLASS, FACADE, ROOF, BRICK, FOLIAGE, BARK, STRIPES, WOOD, CLOTH, SIGN = range(12)
