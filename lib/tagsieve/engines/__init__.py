"""Spark, Ray and the encoders: started once for a whole run, on first use."""
