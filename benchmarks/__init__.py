"""Speed, as ratios against peers measured alternately in one sitting. Never part of the tests."""
