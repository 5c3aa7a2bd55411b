import { DRIVERS } from "@libstorage/server";
import { testDriver } from "../conformance.js";

const IN_MEMORY = "mock keeps everything in memory";

testDriver("mock", {
  skip: false,
  isDurable: IN_MEMORY,
  hasFolders: IN_MEMORY,
  hasDoors: IN_MEMORY,
  place: async () => ({
    open: (context) => DRIVERS.mock.open({ seed: false, delayMs: 0 }, context),
    leftovers: async () => [],
    close: async () => {},
  }),
});
