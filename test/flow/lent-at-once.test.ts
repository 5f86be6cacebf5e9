// All that is true of a flow is true of one that a thread runs from its first byte on.
import './lend-at-once.ts';
import './splice.test.ts';
