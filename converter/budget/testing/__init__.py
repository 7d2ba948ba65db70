"""What the tests of the accuracy budget share."""
