/** The longest that a timer of Node can be set to, 24 days: an honest copy may take long. */
export const NO_TIME_LIMIT_MS = 2 ** 31 - 1;
