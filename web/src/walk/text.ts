/** The text of the chapters until the reader has chosen another. */
export const SHARED = "anna";

/** Characters of a reader's own text. */
export const LONGEST = 40;
