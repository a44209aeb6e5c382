// A new user's way through exo's dashboard: node dashboard_0_3.js URL MODEL PROMPT FOLDER
// Prints {first, answer, second, deleted} as JSON, and leaves a screenshot of each in FOLDER.
const { chromium } = require('playwright-core');

const ARGUMENTS = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync ' +
  '--disable-background-networking --disable-component-update';

async function main(url, model, prompt, folder) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ARGUMENTS.split(' '),
  });
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.setDefaultTimeout(120000);
  const text = () => page.evaluate(() => document.body.innerText);
  const shot = (name) => page.screenshot({ path: `${folder}/${name}.png` });
  const said = {};
  await page.goto(url);
  await page.getByText('Skip').first().click();
  await page.getByText('Skip').first().waitFor({ state: 'hidden' });
  await shot('first');
  said.first = await text();
  const box = page.locator('textarea').first();
  const answers = (count) => page.waitForFunction(
    (n) => (document.body.innerText.match(/tok\/s/g) || []).length >= n, count);
  await box.fill(prompt);
  await box.press('Enter');
  await answers(3); // beside the message, in the list and under it
  await shot('answer');
  said.answer = await text();
  await box.fill('And once more?');
  await box.press('Enter');
  await answers(4);
  await shot('second');
  said.second = await text();
  page.on('dialog', (dialog) => dialog.accept());
  await page.getByText('DELETE', { exact: true }).first().click();
  await page.waitForFunction((name) => !document.body.innerText.includes(name), model);
  await shot('deleted');
  said.deleted = await text();
  await browser.close();
  console.log(JSON.stringify(said));
}

main(...process.argv.slice(2)).catch((error) => { console.error(error); process.exit(1); });
