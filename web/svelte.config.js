// Svelte reads TypeScript by itself; nothing to preprocess. The file is here for svelte-check.
export default {};
