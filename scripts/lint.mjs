// Lint and format check; the lint asks the type checker, which needs the build. `npm run lint`
import { join } from "node:path";
import { ROOT, build, install, run } from "./setup.mjs";

install();
build();
const tool = (name, args) => run(join(ROOT, "node_modules/.bin", name), args);
const linted = tool("oxlint", ["--type-aware", "--deny-warnings"]);
const formatted = tool("oxfmt", ["--check", "."]);
process.exit(linted === 0 ? formatted : linted);
