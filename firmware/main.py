"""What a board runs after boot.py: the agent, with app.py beside it if there is one."""

from vedette import tap

tap.install()  # before anything imports socket

from vedette import standalone  # noqa: E402

standalone.run()
