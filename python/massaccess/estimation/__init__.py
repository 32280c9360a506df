"""Channel estimation from known or soft symbols."""
