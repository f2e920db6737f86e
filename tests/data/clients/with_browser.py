"""The console in a real browser: LINK BROWSER [FOLDER FOR PICTURES]. Prints `done`."""

import re
import shutil
import sys
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

link, browser_name, *pictures = sys.argv[1:]
origin = link.split("/ui/")[0]
WIDE, PHONE = {"width": 1200, "height": 800}, {"width": 390, "height": 844}
expect.set_options(timeout=60_000)


def picture(page, name, after=0):
    """Where pictures are wanted, one, after so many seconds in which there is more to see."""
    for folder in pictures:
        page.wait_for_timeout(after * 1000)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def log_in(context):
    page = context.new_page()
    page.goto(f"{origin}/ui/")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.goto(link)
    expect(page.get_by_role("heading", name="VPSs")).to_be_visible()
    return page


def create_by_keyboard(page):
    page.keyboard.press("Tab")
    while "New VPS" not in (page.evaluate("document.activeElement.textContent") or ""):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="New VPS")).to_be_visible()
    name = page.get_by_label("Name")
    name.focus()
    page.keyboard.type("web")
    page.get_by_label("Image").select_option("busybox")
    page.get_by_label("Memory").fill("64MiB")
    picture(page, "create")
    page.get_by_label("Memory").press("Enter")
    expect(page.get_by_role("heading", name="web", exact=True)).to_be_visible()
    expect(page.locator(".status")).to_have_text("Running")


def look_at_figures(page):
    expect(page.get_by_text("of 64.0 MiB")).to_be_visible()
    expect(page.locator("canvas").first).to_be_visible()
    expect(page.locator(".tiles")).to_contain_text(re.compile(r"10\.\d+\.\d+\.\d+"))
    picture(page, "overview", after=20)


def work_in_the_terminal(page):
    page.get_by_role("link", name="Terminal").click()
    screen = page.locator(".xterm")
    expect(screen).to_be_visible()
    expect(page.locator(".xterm-rows")).to_contain_text(re.compile(r"[#$]"))
    page.keyboard.type("echo $((6 * 7)) from $(hostname)\n")
    expect(page.locator(".xterm-rows")).to_contain_text("42 from web")
    picture(page, "terminal")
    page.keyboard.type("exit\n")
    expect(page.get_by_role("button", name="Connect again")).to_be_visible()


def take_a_snapshot(page):
    page.get_by_role("link", name="Snapshots").click()
    page.get_by_label("Name").fill("before")
    page.get_by_role("button", name="Take a snapshot").click()
    expect(page.get_by_role("button", name="Restore before")).to_be_visible()
    page.get_by_role("button", name="Restore before").click()
    page.get_by_role("dialog").get_by_role("button", name="Restore").click()
    expect(page.locator(".status")).to_have_text("Running")
    page.get_by_role("button", name="Delete before").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("There is no snapshot.")).to_be_visible()


def open_and_close_doors(page):
    page.get_by_role("link", name="Network").click()
    page.get_by_label("Port of the host").fill("18181")
    page.get_by_label("Port inside").fill("80")
    page.get_by_role("button", name="Publish").click()
    close = page.get_by_role("button", name="Close tcp:0.0.0.0:18181")
    expect(close).to_be_visible()
    page.get_by_label("Ports", exact=True).fill("22")
    page.get_by_role("button", name="Add the rule").click()
    expect(page.get_by_role("button", name="Remove rule 1 ingress")).to_be_visible()
    page.get_by_label("In: what no rule is about").select_option("drop")
    # It is off until the answer has come.
    expect(page.get_by_label("In: what no rule is about")).to_be_enabled()
    expect(page.get_by_label("In: what no rule is about")).to_have_value("drop")
    picture(page, "network")
    close.click()
    expect(close).to_have_count(0)


def resize(page):
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("Memory").fill("96MiB")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved")).to_be_visible()
    expect(page.get_by_label("Memory")).to_have_value("96MiB")
    page.get_by_label("Memory").fill("much")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".note.bad")).to_contain_text("limits.memory")


def get_over_a_broken_connection(page):
    broken = set()

    def break_once(route):
        if route.request.url in broken:
            return route.fallback()
        broken.add(route.request.url)
        return route.abort("connectionreset")

    page.route("**/1.0/instances?**", break_once)
    page.get_by_role("link", name="VPSs").click()
    expect(page.get_by_role("row").filter(has_text="web")).to_be_visible()
    page.unroute("**/1.0/instances?**")
    assert broken, "nothing was asked"


def look_elsewhere(page):
    page.get_by_role("link", name="VPSs").click()
    row = page.get_by_role("row").filter(has_text="web")
    expect(row).to_contain_text("Running")
    picture(page, "list", after=13)
    page.emulate_media(color_scheme="dark")
    picture(page, "list-dark")
    page.set_viewport_size(PHONE)
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= PHONE["width"], f"{wide} pixels are wider than a phone"
    picture(page, "list-phone")
    page.set_viewport_size(WIDE)
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Stop web").click()
    expect(page.get_by_role("button", name="Start web")).to_be_visible()
    page.get_by_role("link", name="Events").click()
    expect(page.get_by_text("instance-shutdown").first).to_be_visible()
    picture(page, "events")


def leave(page):
    page.goto(f"{origin}/ui/#/vps/web")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("There is no VPS yet.")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.goto(link)
    expect(page.get_by_role("alert")).to_contain_text("was used already")


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=shutil.which(browser_name), args=["--no-sandbox"])
    context = browser.new_context(ignore_https_errors=True, viewport=WIDE)
    page = log_in(context)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    steps = [create_by_keyboard, look_at_figures, work_in_the_terminal, take_a_snapshot, open_and_close_doors, resize]
    for step in [*steps, get_over_a_broken_connection, look_elsewhere, leave]:
        try:
            step(page)
        except Exception as error:
            # The last words are those that a short report of many tests keeps.
            sys.exit(f"{error}\n{step.__name__}: {str(error).splitlines()[0]}")
    assert not wrong, wrong
    browser.close()
print("done")
