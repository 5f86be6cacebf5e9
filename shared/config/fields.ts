import * as v from 'valibot';

/** A whole number within bounds that the message names. */
export const count = (min: number, max: number) => {
  const expected = `a whole number from ${min} to ${max}`;
  return v.pipe(
    v.number(expected),
    v.integer(expected),
    v.minValue(min, expected),
    v.maxValue(max, expected),
  );
};

export const absolutePath = v.pipe(v.string('an absolute path'), v.regex(/^\/[^\0]*$/, 'an absolute path'));
